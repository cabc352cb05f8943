"""The stack in containers: secrets, images, stacks of one's own."""
