//! A consumer for RabbitMQ that acknowledges a message only when its work is done.
