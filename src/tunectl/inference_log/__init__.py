"""What a served model was asked and answered, and the feedback of people."""
