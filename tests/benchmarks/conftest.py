"""Scripts, which import each other from their own folder: nothing for pytest to collect."""

collect_ignore_glob = ["*.py"]
