"""A run on disk: its folder, what goes into a stage, and the key that says whether it is made again."""
