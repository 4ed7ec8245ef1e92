"""Object files: the implicit parameters of a learnt object, their formats and how they are applied."""
