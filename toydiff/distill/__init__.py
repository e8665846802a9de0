"""Methods that train a student, a file a family; each function takes a `Problem` and returns the `Training` that `fit` runs."""
