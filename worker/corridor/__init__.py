"""The product in three stories, each readable on one screen: `intake`, `reading`, `delivery`."""
