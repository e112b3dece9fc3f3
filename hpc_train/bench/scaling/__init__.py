"""How much faster more ranks are: ours, torch's own way, and what the machine allows."""
