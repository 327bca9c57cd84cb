/* Consuming with rabbitmq-c, as its users write it: one connection, one thread, each message read with
 * `amqp_consume_message`, and one acknowledgement for every hundred.
 *
 *   AMQP_URL=amqp://… consumed QUEUE MESSAGES BYTES PREFETCH
 *
 * Prints one line, the same as the other ways: seconds and CPU from the subscription to the end of the connection, how many
 * different messages came, and how many came twice. */

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include <amqp.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1, ACKNOWLEDGED_AT_ONCE = 100, NUMBER_BYTES = 8 };

static void die(const char *what) {
    fprintf(stderr, "rabbitmq-c: %s\n", what);
    exit(1);
}

static void check(int status, const char *what) {
    if (status != AMQP_STATUS_OK) {
        fprintf(stderr, "rabbitmq-c: %s: %s\n", what, amqp_error_string2(status));
        exit(1);
    }
}

static void check_reply(amqp_rpc_reply_t reply, const char *what) {
    if (reply.reply_type != AMQP_RESPONSE_NORMAL) die(what);
}

static double seconds(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static amqp_connection_state_t connect_to(char *url) {
    struct amqp_connection_info broker;
    check(amqp_parse_url(url, &broker), "reading AMQP_URL");
    amqp_connection_state_t connection = amqp_new_connection();
    amqp_socket_t *socket = amqp_tcp_socket_new(connection);
    if (socket == NULL) die("no socket");
    check(amqp_socket_open(socket, broker.host, broker.port), "connecting");
    int on = 1;
    setsockopt(amqp_get_sockfd(connection), IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    check_reply(amqp_login(connection, broker.vhost, 0, 131072, 0, AMQP_SASL_METHOD_PLAIN, broker.user, broker.password),
                "logging in");
    amqp_channel_open(connection, CHANNEL);
    check_reply(amqp_get_rpc_reply(connection), "opening a channel");
    return connection;
}

/* The number of a message stands in the first bytes of its body. */
static uint64_t number_of(amqp_bytes_t body) {
    if (body.len < NUMBER_BYTES) die("a message without a number");
    uint64_t number = 0;
    for (int at = 0; at < NUMBER_BYTES; at++) number = number << 8 | ((const unsigned char *)body.bytes)[at];
    return number;
}

int main(int count, char **arguments) {
    char *url = getenv("AMQP_URL");
    if (count != 5 || url == NULL) die("AMQP_URL=… consumed QUEUE MESSAGES BYTES PREFETCH");
    amqp_bytes_t queue = amqp_cstring_bytes(arguments[1]);
    uint64_t messages = strtoull(arguments[2], NULL, 10);
    uint16_t prefetch = (uint16_t)strtoull(arguments[4], NULL, 10);
    unsigned char *seen = calloc(messages, 1);
    if (seen == NULL) die("no memory");
    amqp_connection_state_t connection = connect_to(url);
    amqp_basic_qos(connection, CHANNEL, 0, prefetch, 0);
    check_reply(amqp_get_rpc_reply(connection), "setting the prefetch");
    amqp_basic_consume(connection, CHANNEL, queue, amqp_empty_bytes, 0, 0, 0, amqp_empty_table);
    check_reply(amqp_get_rpc_reply(connection), "subscribing");

    double began = seconds(CLOCK_MONOTONIC), cpu_began = seconds(CLOCK_PROCESS_CPUTIME_ID);
    uint64_t consumed = 0, wrong = 0;
    for (uint64_t received = 1; received <= messages; received++) {
        amqp_envelope_t delivery;
        amqp_maybe_release_buffers(connection);
        check_reply(amqp_consume_message(connection, &delivery, NULL, 0), "reading a message");
        uint64_t number = number_of(delivery.message.body);
        if (number < messages && !seen[number]) {
            seen[number] = 1;
            consumed++;
        } else {
            wrong++;
        }
        if (received % ACKNOWLEDGED_AT_ONCE == 0 || received == messages)
            check(amqp_basic_ack(connection, CHANNEL, delivery.delivery_tag, 1), "acknowledging");
        amqp_destroy_envelope(&delivery);
    }
    check_reply(amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS), "closing the channel");
    check_reply(amqp_connection_close(connection, AMQP_REPLY_SUCCESS), "closing the connection");
    double took = seconds(CLOCK_MONOTONIC) - began, cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_began;

    printf("seconds=%.6f cpu_seconds=%.6f confirmed=0 unroutable=0 fired=0 consumed=%" PRIu64 " wrong=%" PRIu64 "\n", took,
           cpu, consumed, wrong);
    amqp_destroy_connection(connection);
    return 0;
}
