"""What can be checked of the image and of docker/compose.yaml on a machine without a container engine."""
