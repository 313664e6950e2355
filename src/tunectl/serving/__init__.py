"""Thinking of the server: shapes of requests and answers, prompts, admission, keys, arms, proof. No sockets, no engine."""
