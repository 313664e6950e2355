"""Protocol of inference engines, prompt rendering and grammars, which serving and the backends share."""
