"""Networks with one output logit: weights, learning-rate groups, input scaling, test-time views.

Everything here is a plain function of modules and tensors; nothing knows of files of cells, of the
trainer or of a config node.
"""
