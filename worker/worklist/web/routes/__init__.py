"""One module for each page, or kind of pages."""
