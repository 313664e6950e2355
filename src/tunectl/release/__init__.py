"""Floor 4: releases, what they promise, and which of them is the champion. No library that computes is imported here."""
