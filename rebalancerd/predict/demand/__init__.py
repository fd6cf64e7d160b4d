"""Demand of the coming hour: forecasts per VM, joint scenarios from them, and who deserves to make them."""
