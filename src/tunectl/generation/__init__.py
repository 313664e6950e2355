"""The engine protocol, prompts and grammars: what serving and the backends share."""
