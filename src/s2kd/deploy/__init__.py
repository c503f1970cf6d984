"""Deployment of students: export, the forecaster without PyTorch, the service."""
