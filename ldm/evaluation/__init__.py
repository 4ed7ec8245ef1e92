"""How good an insertion is: metrics and the benches that run them."""
