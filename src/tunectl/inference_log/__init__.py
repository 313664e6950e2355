"""The log of requests to served models, their answers, and people's feedback."""
