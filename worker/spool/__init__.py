"""Where received bytes rest: safe before they are acknowledged, named by their content."""
