"""What the recorded tables say: does the spectrum early in training tell which pruned network ends well?"""
