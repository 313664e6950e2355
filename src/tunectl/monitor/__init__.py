"""Has the world changed? Two-sample tests of live traffic against a reference, and what is concluded from them."""
