"""The network's parts: f_user, f_item, g and h, and what they are built of. model/network.py puts them together."""
