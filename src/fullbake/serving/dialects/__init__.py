"""The protocols of other servers, one module each."""
