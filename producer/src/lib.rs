//! A producer for RabbitMQ that says truthfully what became of each message.
