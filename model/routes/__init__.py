"""The doors: each turns a request into jobs for the generator, and answers into its own shape."""
