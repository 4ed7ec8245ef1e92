"""How good an insertion is: scores, benchmarks, and the engine that compares methods on them."""
