"""What an observed application imports: metrics, structured logging, tracing.

Light on purpose: prometheus_client, structlog and OpenTelemetry, nothing else. A service needs
three lines::

    setup_logging()
    setup_tracing(app, "rag-api")
    setup_metrics(app)
"""
