"""Texts to token ids to logits: tokenizer, encoder, heads, and the network made of them.

Face: `tokenizer.load_tokenizer`, `inference.encode` and `logits_over`, `network.build_network` and `load_network`.
What is special about an encoder family is in `families`.
"""
