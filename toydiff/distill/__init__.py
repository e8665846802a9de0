"""Methods that train a student, a file a method.

A file holds the paper's algorithm as a box with numbered lines, a pure loss whose lines bear these numbers, the knobs,
how the method is put together, and its card. In a box theta are the student's weights, theta- those of its target
network, and sg(y) is y without a gradient.

"The deck" is the lecture that these files follow, "The Principle and Application of Diffusion Acceleration" (Fu-Yun
Wang). Slides, algorithms and references are numbered as there.
"""
