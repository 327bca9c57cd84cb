/* Confirmed publishing with rabbitmq-c, as its users write it: one connection, one thread, a window of unanswered
 * messages. `amqp_basic_publish` writes each message with its own calls; answers are read when the window is full, and then
 * all that have come.
 *
 *   AMQP_URL=amqp://… confirmed QUEUE MESSAGES BYTES WINDOW
 *
 * Prints one line, the same as the other ways: seconds and CPU of the timed section alone, and how many messages ended how. */

#include <inttypes.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>

#include <amqp.h>
#include <amqp_framing.h>
#include <amqp_tcp_socket.h>

enum { CHANNEL = 1 };

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

/* Which of the window's messages are unanswered. Answers may come in any order, so each has a place of its own. */
static uint64_t *unanswered_tag;
static uint64_t window, outstanding, lowest = 1, acked, nacked, returned;

static void settle(uint64_t tag, uint64_t *count) {
    uint64_t *place = &unanswered_tag[tag % window];
    if (*place != tag) return;
    *place = 0;
    outstanding--;
    (*count)++;
}

static void on_answer(uint64_t tag, int multiple, uint64_t *count) {
    if (multiple) {
        for (; lowest <= tag; lowest++) settle(lowest, count);
    } else {
        settle(tag, count);
    }
}

static void on_frame(amqp_connection_state_t connection, const amqp_frame_t *frame) {
    if (frame->frame_type != AMQP_FRAME_METHOD) return;
    switch (frame->payload.method.id) {
        case AMQP_BASIC_ACK_METHOD: {
            const amqp_basic_ack_t *ack = frame->payload.method.decoded;
            on_answer(ack->delivery_tag, ack->multiple, &acked);
            break;
        }
        case AMQP_BASIC_NACK_METHOD: {
            const amqp_basic_nack_t *nack = frame->payload.method.decoded;
            on_answer(nack->delivery_tag, nack->multiple, &nacked);
            break;
        }
        case AMQP_BASIC_RETURN_METHOD: {
            amqp_message_t message;
            check_reply(amqp_read_message(connection, CHANNEL, &message, 0), "reading a returned message");
            amqp_destroy_message(&message);
            returned++;
            break;
        }
        default:
            die("the broker closed the channel or the connection");
    }
}

/* Waits for one answer, then takes all that are there. */
static void read_answers(amqp_connection_state_t connection) {
    do {
        amqp_frame_t frame;
        amqp_maybe_release_buffers(connection);
        check(amqp_simple_wait_frame(connection, &frame), "waiting for an answer");
        on_frame(connection, &frame);
    } while (outstanding > 0 && (amqp_frames_enqueued(connection) || amqp_data_in_buffer(connection)));
}

/* A random id in the form of a UUID (xorshift64*). */
static void fresh_id(char *text) {
    static const char digits[] = "0123456789abcdef";
    static uint64_t state = 0;
    if (state == 0) state = (uint64_t)time(NULL) * 0x9E3779B97F4A7C15u | 1;
    for (int half = 0, at = 0; half < 2; half++) {
        state ^= state >> 12, state ^= state << 25, state ^= state >> 27;
        uint64_t bits = state * 0x2545F4914F6CDD1Du;
        for (int digit = 0; digit < 16; digit++, bits >>= 4) {
            if (at == 8 || at == 13 || at == 18 || at == 23) text[at++] = '-';
            text[at++] = digits[bits & 15];
        }
    }
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
    amqp_confirm_select(connection, CHANNEL);
    check_reply(amqp_get_rpc_reply(connection), "selecting confirms");
    return connection;
}

int main(int count, char **arguments) {
    char *url = getenv("AMQP_URL");
    if (count != 5 || url == NULL) die("AMQP_URL=… confirmed QUEUE MESSAGES BYTES WINDOW");
    amqp_bytes_t queue = amqp_cstring_bytes(arguments[1]);
    uint64_t messages = strtoull(arguments[2], NULL, 10);
    size_t size = strtoull(arguments[3], NULL, 10);
    window = strtoull(arguments[4], NULL, 10);
    if (window == 0) die("a window of 0");
    unanswered_tag = calloc(window, sizeof *unanswered_tag);
    amqp_bytes_t body = amqp_bytes_malloc(size);
    if (unanswered_tag == NULL || (size > 0 && body.bytes == NULL)) die("no memory");
    for (size_t at = 0; at < size; at++) ((char *)body.bytes)[at] = (char)('a' + at % 26);
    amqp_connection_state_t connection = connect_to(url);

    double began = seconds(CLOCK_MONOTONIC), cpu_began = seconds(CLOCK_PROCESS_CPUTIME_ID);
    for (uint64_t tag = 1; tag <= messages; tag++) {
        /* An answer may come out of order: the place of this tag has to be free too. */
        while (outstanding >= window || unanswered_tag[tag % window] != 0) read_answers(connection);
        struct timeval now;
        gettimeofday(&now, NULL);
        char id[36];
        fresh_id(id);
        amqp_table_entry_t sent_at = {.key = amqp_cstring_bytes("correio-sent-at-us"), .value.kind = AMQP_FIELD_KIND_I64};
        sent_at.value.value.i64 = (int64_t)now.tv_sec * 1000000 + now.tv_usec;
        amqp_basic_properties_t properties = {
            ._flags = AMQP_BASIC_MESSAGE_ID_FLAG | AMQP_BASIC_APP_ID_FLAG | AMQP_BASIC_TYPE_FLAG | AMQP_BASIC_TIMESTAMP_FLAG |
                      AMQP_BASIC_DELIVERY_MODE_FLAG | AMQP_BASIC_HEADERS_FLAG,
            .message_id = {sizeof id, id},
            .app_id = amqp_cstring_bytes("bench"),
            .type = amqp_cstring_bytes("bench"),
            .timestamp = (uint64_t)now.tv_sec,
            .delivery_mode = AMQP_DELIVERY_PERSISTENT,
            .headers = {1, &sent_at},
        };
        unanswered_tag[tag % window] = tag;
        outstanding++;
        check(amqp_basic_publish(connection, CHANNEL, amqp_empty_bytes, queue, 1, 0, &properties, body), "publishing");
    }
    while (outstanding > 0) read_answers(connection);
    double took = seconds(CLOCK_MONOTONIC) - began, cpu = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_began;

    printf("seconds=%.6f cpu_seconds=%.6f confirmed=%" PRIu64 " unroutable=%" PRIu64 " fired=0 consumed=0 wrong=%" PRIu64 "\n", took, cpu,
           acked - returned, returned, nacked + returned);
    amqp_channel_close(connection, CHANNEL, AMQP_REPLY_SUCCESS);
    amqp_connection_close(connection, AMQP_REPLY_SUCCESS);
    amqp_destroy_connection(connection);
    return 0;
}
