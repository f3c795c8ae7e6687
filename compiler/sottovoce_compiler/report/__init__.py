"""What a bundle says about itself: data to measure on, scores, the source's own scores, and the gate between
them.
"""
