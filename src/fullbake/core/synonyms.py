"""Words of other libraries for what fullbake calls otherwise, so that an error can name the right word.

The meaning of a word is looked up before its spelling is compared: `lr` is spelled like no field, but it means
`learning_rate`. Each name has one spelling in flags, recipes and Python, so synonyms are answered, not accepted: a
script with other words could not be searched for the documented ones.
"""

from collections.abc import Iterable, Mapping
from typing import Final

FIELD_SYNONYMS: Final = {
    # transformers' TrainingArguments and its example scripts
    "lr": "learning_rate",
    "rate": "learning_rate",
    "peak_lr": "learning_rate",
    "max_lr": "learning_rate",
    "num_train_epochs": "epochs",
    "num_epochs": "epochs",
    "n_epochs": "epochs",
    "max_epochs": "epochs",
    "per_device_train_batch_size": "batch_size",
    "train_batch_size": "batch_size",
    "per_gpu_train_batch_size": "batch_size",
    "batchsize": "batch_size",
    "bs": "batch_size",
    "gradient_accumulation_steps": "gradient_accumulation",
    "grad_accum": "gradient_accumulation",
    "accumulate_grad_batches": "gradient_accumulation",
    "max_seq_length": "max_length",
    "max_seq_len": "max_length",
    "max_len": "max_length",
    "maxlen": "max_length",
    "seq_len": "max_length",
    "sequence_length": "max_length",
    "model_max_length": "max_length",
    "max_tokens": "max_length",
    "model": "base",
    "model_name": "base",
    "model_name_or_path": "base",
    "model_id": "base",
    "pretrained": "base",
    "pretrained_model": "base",
    "pretrained_model_name_or_path": "base",
    "encoder": "base",
    "backbone": "base",
    "base_model": "base",
    "checkpoint": "base",
    "bert": "base",
    "output_dir": "out",
    "output": "out",
    "output_path": "out",
    "save_dir": "out",
    "out_dir": "out",
    "o": "out",
    "overwrite_output_dir": "overwrite",
    "force": "overwrite",
    "lr_scheduler_type": "schedule",
    "lr_scheduler": "schedule",
    "scheduler": "schedule",
    "warmup_ratio": "warmup",
    "optim": "optimizer",
    "wd": "weight_decay",
    "decay": "weight_decay",
    "max_norm": "max_grad_norm",
    "clip": "max_grad_norm",
    "gradient_clip_val": "max_grad_norm",
    "early_stopping": "patience",
    "early_stopping_patience": "patience",
    "label_smoothing_factor": "label_smoothing",
    "layerwise_lr_decay": "layer_decay",
    "llrd": "layer_decay",
    "freeze": "freeze_layers",
    "fp16": "precision",
    "bf16": "precision",
    "mixed_precision": "precision",
    "dtype": "precision",
    "torch_dtype": "precision",
    "random_state": "seed",
    "random_seed": "seed",
    "metric_for_best_model": "metric",
    "scoring": "metric",
    "score": "metric",
    "eval_metric": "metric",
    "criterion": "loss",
    "loss_function": "loss",
    "loss_fn": "loss",
    "gamma": "focal_gamma",
    "class_weight": "class_weights",
    "pos_weight": "class_weights",
    "oversample": "sampling",
    "sampler": "sampling",
    # columns and parts of the data
    "text_column": "text",
    "text_col": "text",
    "text_field": "text",
    "text_column_name": "text",
    "text_column_names": "text",
    "sentence": "text",
    "sentence1": "text",
    "input": "text",
    "inputs": "text",
    "x": "text",
    "features": "text",
    "content": "text",
    "document": "text",
    "review": "text",
    "sentence2": "text_pair",
    "text2": "text_pair",
    "text_b": "text_pair",
    "hypothesis": "text_pair",
    "label_column": "label",
    "label_col": "label",
    "label_field": "label",
    "label_column_name": "label",
    "target": "label",
    "target_column": "label",
    "y": "label",
    "class": "label",
    "classes": "labels",
    "category": "label",
    "label_columns": "labels",
    "multi_label": "labels",
    "multilabel": "labels",
    "sep": "delimiter",
    "separator": "delimiter",
    "header": "no_header",
    "quotechar": "quoting",
    "train_file": "data",
    "train": "data",
    "dataset": "data",
    "dataset_name": "data",
    "data_path": "data",
    "validation_file": "validation",
    "validation_split": "validation",
    "eval_file": "validation",
    "eval_dataset": "validation",
    "valid": "validation",
    "val": "validation",
    "dev": "validation",
    "val_split": "validation",
    "test_file": "test",
    "test_size": "test",
    "test_split": "test",
    "holdout": "test",
    "cv": "folds",
    "n_splits": "folds",
    "num_folds": "folds",
    "kfold": "folds",
    "groups": "group",
    "group_column": "group",
    "max_train_samples": "max_rows",
    "max_samples": "max_rows",
    "limit": "max_rows",
    "nrows": "max_rows",
    "sample": "max_rows",
    "subset": "max_rows",
    # heads, decisions and ways
    "classifier_dropout": "dropout",
    "hidden_dropout_prob": "dropout",
    "pooling_mode": "pooling",
    "pool": "pooling",
    "num_layers": "layers",
    "hidden_layers": "layers",
    "hidden_size": "width",
    "hidden_dim": "width",
    "method": "way",
    "mode": "way",
    "strategy": "way",
    "approach": "way",
    "classifier": "head",
    "threshold": "thresholds",
    "pos_label": "positive",
    "positive_class": "positive",
    "config": "recipe",
    "config_file": "recipe",
    "yaml": "recipe",
    "preset": "recipe",
    # running and scoring
    "resume_from_checkpoint": "resume",
    "save_steps": "checkpoint_every",
    "save_strategy": "checkpoint_every",
    "n_jobs": "threads",
    "num_workers": "threads",
    "workers": "threads",
    "jobs": "threads",
    "processes": "threads",
    "num_processes": "threads",
    "num_threads": "threads",
    "cpus": "threads",
    "timeout": "budget",
    "time_limit": "budget",
    "max_time": "budget",
    "models": "recipes",
    "learners": "recipes",
    "num_seeds": "seeds",
    "runs": "seeds",
    "repeats": "seeds",
    "learning_rates": "rates",
    "lrs": "rates",
    "topk": "top_k",
    **dict.fromkeys(("cutoff", "cut_off", "min_score", "min_confidence", "confidence_threshold"), "threshold"),
    **dict.fromkeys(("only_labels", "no_scores", "skip_scores"), "labels_only"),
    "k": "top_k",
    "backend": "engine",
    "runtime": "engine",
    "device": "engine",
    "report_to": "track",
    "logger": "track",
    "quantize": "int8",
    "onnx": "graph",
    "html": "report",
    "verbose": "debug",
    "silent": "quiet",
    "q": "quiet",
    # masked language modeling
    "mlm_probability": "mask_probability",
    "whole_word_mask": "whole_words",
    "max_steps": "steps",
    "num_steps": "steps",
    "train_steps": "steps",
    # clusters
    **dict.fromkeys(("ray", "cluster", "ray_address", "distributed"), "on"),
    # servers
    **dict.fromkeys(("ssl_certfile", "tls_cert", "certfile", "cert"), "tls_certificate"),
    **dict.fromkeys(("ssl_keyfile", "keyfile"), "tls_key"),
    **dict.fromkeys(("max_client_batch_size", "max_batch_requests"), "max_texts"),
    **dict.fromkeys(("payload_limit", "max_body_size"), "max_body"),
    **dict.fromkeys(("limit_concurrency", "max_concurrent_requests"), "max_connections"),
    **dict.fromkeys(("allowed_origins", "cors_allow_origin"), "allow_origin"),
    **dict.fromkeys(("allowed_hosts", "trusted_hosts"), "allow_host"),
    "api_key": "api_key_file",
    "hostname": "host",
}
"""A word for a setting -> what it is called here: a field of a recipe, a flag, or a keyword."""

JOB_WORDS: Final = frozenset(("n_jobs", "num_workers", "workers", "processes", "num_processes"))
"""Words that mean `jobs` for what runs several processes, and `threads` (see above) for what does not."""

COMMAND_SYNONYMS: Final = {
    **dict.fromkeys(("fit", "finetune", "fine_tune", "learn", "adapt", "training", "run", "build"), "train"),
    **dict.fromkeys(("test", "eval", "score", "validate", "metrics", "evaluation", "assess"), "evaluate"),
    **dict.fromkeys(("classify", "infer", "inference", "tag", "pipeline", "apply", "transform", "label"), "predict"),
    **dict.fromkeys(
        ("info", "describe", "stats", "analyze", "analyse", "eda", "explore", "profile", "lint"), "inspect"
    ),
    **dict.fromkeys(("list", "ls", "models", "zoo", "configs", "config", "presets"), "recipes"),
    **dict.fromkeys(("benchmark", "speed", "perf", "latency", "time"), "bench"),
    **dict.fromkeys(("convert", "onnx", "optimize", "optimise", "quantize", "deploy"), "export"),
    **dict.fromkeys(("quickstart", "example", "examples", "tutorial", "init", "start", "try"), "demo"),
    **dict.fromkeys(("mlm", "further_pretrain", "further_pretraining", "dapt", "tapt", "pretraining"), "pretrain"),
    **dict.fromkeys(("tune", "search", "sweep", "hpo", "grid", "automl", "leaderboard", "cv", "experiment"), "compare"),
    **dict.fromkeys(("student", "compress", "shrink", "distillation"), "distill"),
    **dict.fromkeys(("env", "environment", "diagnose", "health", "debug", "system"), "doctor"),
    **dict.fromkeys(("interpret", "shap", "lime", "attribution", "why"), "explain"),
    **dict.fromkeys(("upload", "publish", "share", "push_to_hub"), "push"),
    **dict.fromkeys(("clean", "clear", "purge", "prune"), "cache"),
    **dict.fromkeys(("verify", "admit", "checkbase"), "check"),
    **dict.fromkeys(("forgetting", "perplexity"), "probe"),
    **dict.fromkeys(("layers", "params", "parameters", "architecture"), "summary"),
}
"""A word for a command -> the command."""

RECIPE_SYNONYMS: Final = {
    **dict.fromkeys(("fine_tune", "fine_tuning", "finetuning", "finetuned", "full", "bert", "default"), "finetune"),
    **dict.fromkeys(("feature_extraction", "features", "embeddings", "freeze", "frozen_base", "head"), "frozen"),
    **dict.fromkeys(("linear", "logistic", "logistic_regression", "logreg", "linear_probe", "probe"), "frozen-linear"),
    **dict.fromkeys(("mlp", "dense"), "frozen-mlp"),
    **dict.fromkeys(("dapt", "pretrain", "further_pretraining", "pretraining", "mlm"), "further-pretrain"),
    **dict.fromkeys(("devlin", "bert_paper"), "devlin2019"),
    **dict.fromkeys(("tf_idf", "tfidf_logreg", "baseline", "bow"), "tfidf"),
    **dict.fromkeys(("dummy", "most_frequent", "constant"), "majority"),
    "sun": "sun2019",
}
"""A word for a recipe, a way or a baseline -> its name."""

VALUE_SYNONYMS: Final = {
    **RECIPE_SYNONYMS,
    **dict.fromkeys(("avg", "average", "mean_pooling"), "mean"),
    **dict.fromkeys(("first", "cls_token", "pooler"), "cls"),
    **dict.fromkeys(("ce", "crossentropy", "bce", "log_loss"), "cross_entropy"),
    **dict.fromkeys(("lr", "logistic_regression", "dense", "softmax"), "linear"),
    **dict.fromkeys(("16", "half", "mixed", "amp", "bfloat16"), "bf16"),
    **dict.fromkeys(("32", "float32", "full"), "fp32"),
    **dict.fromkeys(("adam_w", "adamw_torch", "adamw_hf"), "adamw"),
    **dict.fromkeys(("start", "only_first", "left"), "head"),
    **dict.fromkeys(("end", "right"), "tail"),
    **dict.fromkeys(("sliding", "sliding_window", "chunks", "chunk"), "windows"),
    **dict.fromkeys(("oversample", "weighted"), "balanced"),
    **dict.fromkeys(("onnxruntime", "ort"), "onnx"),
    **dict.fromkeys(("pytorch", "pt"), "torch"),
    **dict.fromkeys(("f1", "macro_f1", "f1_score", "macro"), "f1_macro"),
    **dict.fromkeys(("acc", "eval_accuracy"), "accuracy"),
    **dict.fromkeys(("auc", "auroc", "rocauc"), "roc_auc"),
    **dict.fromkeys(("eval_loss", "nll"), "neg_log_loss"),
}
"""A word for the value of a field -> the value, where the field takes it."""

METHOD_SYNONYMS: Final = {
    **dict.fromkeys(("classify", "infer", "predict_label", "predict_labels", "pipeline"), "predict"),
    **dict.fromkeys(("predict_probabilities", "predict_probability", "probabilities", "proba"), "predict_proba"),
    **dict.fromkeys(("decision_function", "raw_scores", "scores"), "logits"),
    **dict.fromkeys(("transform", "encode", "embeddings", "get_embeddings"), "embed"),
    **dict.fromkeys(("save_pretrained", "dump", "to_disk", "save_model"), "save"),
    **dict.fromkeys(("from_pretrained", "from_file", "read", "load_model", "open"), "load"),
    **dict.fromkeys(("labels", "classes", "id2label", "label2id", "names"), "label_names"),
    **dict.fromkeys(("model", "bert", "module"), "network"),
    **dict.fromkeys(("explain_instance", "attributions", "feature_importances_"), "explain"),
    **dict.fromkeys(("hf_model", "to_hf", "to_pytorch"), "to_transformers"),
    **dict.fromkeys(("metrics", "evaluate", "accuracy"), "score"),
}
"""A word for a method or attribute of a classifier -> its name."""

METHOD_NOTES: Final = {
    **dict.fromkeys(
        ("fit", "train", "partial_fit", "finetune", "fine_tune"),
        "A classifier is trained already: adapt(recipe, rows) trains a new one, and "
        "fullbake.integrations.sklearn.FullbakeClassifier has fit.",
    ),
    **dict.fromkeys(
        ("eval", "to", "cuda", "cpu", "half"),
        "There is nothing to switch: predictions use no dropout, and a GPU where torch finds one.",
    ),
}
"""A word for what a classifier does not have -> what to do instead."""

FUNCTION_SYNONYMS: Final = {
    **dict.fromkeys(("train", "fit", "finetune", "fine_tune", "learn", "Trainer", "train_classifier"), "adapt"),
    **dict.fromkeys(("load", "load_classifier", "load_model", "pipeline", "from_pretrained", "Model"), "Classifier"),
    **dict.fromkeys(("load_dataset", "read_csv", "load_data", "read_data"), "read_dataset"),
    **dict.fromkeys(("test", "score", "eval"), "evaluate"),
    **dict.fromkeys(("predict", "classify", "infer"), "predict_file"),
    **dict.fromkeys(("Config", "TrainingArguments", "Settings", "recipe"), "Recipe"),
    **dict.fromkeys(("pretrain", "dapt"), "further_pretrain"),
    **dict.fromkeys(("tune", "search", "benchmark", "leaderboard"), "compare"),
    **dict.fromkeys(("cascade",), "make_cascade"),
    **dict.fromkeys(("FullbakeError", "Exception_"), "Error"),
}
"""A word for a name of the package -> the name."""


def right_name(word: str, choices: Iterable[str], synonyms: Mapping[str, str]) -> str | None:
    """Return the name that a word means, None if the table does not know the word.

    Args:
        word: What the user wrote. Case, and `-` against `_`, make no difference.
        choices: What is allowed; a meaning that is not among them does not count.
        synonyms: A word in lower case, with `_` for `-` -> its name.
    """
    spelled = word.strip().strip("-").replace("-", "_")
    known = {key.casefold(): name for key, name in synonyms.items()}
    allowed = {choice.casefold().replace("-", "_"): choice for choice in choices}
    if spelled.casefold() in allowed:
        return allowed[spelled.casefold()]
    meant = known.get(spelled.casefold())
    return None if meant is None else allowed.get(meant.casefold().replace("-", "_"))


def no_setting(word: str) -> str | None:
    """Return a sentence for a word that is a setting elsewhere, but for which fullbake has none; None for others."""
    return _NO_SETTING.get(word.strip().strip("-").replace("-", "_").casefold())


_NO_SETTING: Final = {
    **dict.fromkeys(
        ("do_train", "do_eval", "do_predict", "evaluation_strategy", "eval_strategy"),
        "Training, validation and test rows need no switch: `fullbake train` trains, scores the validation rows after "
        "each epoch and the test rows once, and `fullbake predict` is a command of its own. Leave it out.",
    ),
    **dict.fromkeys(
        ("num_labels", "num_classes", "n_classes"),
        "The number of labels is counted in the training rows. Leave it out.",
    ),
    **dict.fromkeys(
        ("device", "device_map", "gpu", "gpus", "cuda", "no_cuda", "use_cpu", "accelerator"),
        "A GPU is used where torch finds one; the environment variable CUDA_VISIBLE_DEVICES hides or selects GPUs.",
    ),
    **dict.fromkeys(
        ("logging_steps", "eval_steps", "logging_dir", "disable_tqdm"),
        "Losses and scores are recorded for each epoch, in history.json and history.png of the bundle. Leave it out.",
    ),
    **dict.fromkeys(
        ("load_best_model_at_end", "save_total_limit", "greater_is_better"),
        "The weights of the best epoch on validation are always taken. Leave it out.",
    ),
    **dict.fromkeys(
        ("tokenizer", "tokenizer_name", "do_lower_case", "lowercase"),
        "The tokenizer is the one in the folder of the base. Leave it out.",
    ),
    **dict.fromkeys(
        ("padding_side", "pad_to_max_length"),
        "Texts are padded to the longest of their batch; padding='max_length' pads them to max_length.",
    ),
}
"""A word -> what to do without it."""
