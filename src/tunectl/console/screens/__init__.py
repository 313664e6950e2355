"""The screens of the console, one per file: what each shows, as structs, read from files alone."""
