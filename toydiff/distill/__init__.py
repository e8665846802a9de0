"""Methods that train a student, a file a method: its algorithm's box, a pure loss whose lines bear the box's
numbers, its knobs, how it is put together, its card."""
