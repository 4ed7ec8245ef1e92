"""How fast and how lean it is: what is compared, how it is timed, the report."""
