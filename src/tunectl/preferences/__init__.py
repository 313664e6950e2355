"""What people prefer: judgements become pairs, their agreement is measured, the next question is chosen. Pure thinking."""
