"""What all pages share: the lesson, its controls, the editor of mixtures, and the code under a figure."""
