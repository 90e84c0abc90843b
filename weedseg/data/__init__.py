"""Field images and labels come in: index, check, split, read, augment."""
