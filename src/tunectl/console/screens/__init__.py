"""The screens of the console, one a file: what each shows, as structs, read from files alone."""
