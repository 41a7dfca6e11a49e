"""The datasets, a file each: classes, official layout, split lists, preprocessings."""
