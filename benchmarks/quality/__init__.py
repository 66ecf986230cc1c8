"""How random the masks are: streams of their bits, batteries, and a screen."""
