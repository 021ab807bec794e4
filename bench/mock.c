/*
 * mock.c - a fast OpenAI-style upstream, so that what is measured is the server in front of it.
 *
 *   gcc -O2 -o mock mock.c && ./mock PORT
 *
 * One thread, epoll, HTTP/1.1 with kept-alive connections, 127.0.0.1 only. Every POST is answered with one chat
 * completion of about 650 bytes or, if its body holds "stream":true, with 64 content chunks, a finish chunk, a usage
 * chunk and [DONE], back to back, each event in an HTTP chunk and a write() of its own. Nothing else is understood:
 * whatever is not a POST is answered with 404. It ends when its parent does.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#define MOST_CONNECTIONS 4096
#define MOST_REQUEST (1 << 20)
#define CONTENT_CHUNKS 64
#define WRITE_TIMEOUT_MS 10000

typedef struct {
    char *buffer;
    size_t length;
} Connection;

typedef struct {
    char *bytes;
    size_t length;
} Bytes;

static Connection connections[MOST_CONNECTIONS];
static Bytes events[CONTENT_CHUNKS + 3];
static size_t event_count;
static Bytes plain_answer;

static const char STREAM_HEAD[] =
    "HTTP/1.1 200 OK\r\n"
    "Content-Type: text/event-stream; charset=utf-8\r\n"
    "Cache-Control: no-cache\r\n"
    "x-request-id: req_mock\r\n"
    "Transfer-Encoding: chunked\r\n\r\n";

static const char NOT_FOUND[] = "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";

static const char PLAIN_BODY[] =
    "{\"id\":\"chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT\",\"object\":\"chat.completion\",\"created\":1741569952,"
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"choices\":[{\"index\":0,\"message\":{\"role\":\"assistant\",\"content\":"
    "\"Hello! How can I assist you today? I am a mock answer that goes on for about forty tokens, so that the body "
    "looks like a real one.\",\"refusal\":null,\"annotations\":[]},\"logprobs\":null,\"finish_reason\":\"stop\"}],"
    "\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":31,\"total_tokens\":88,"
    "\"prompt_tokens_details\":{\"cached_tokens\":0,\"audio_tokens\":0},"
    "\"completion_tokens_details\":{\"reasoning_tokens\":0,\"audio_tokens\":0}},"
    "\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"}";

#define EVENT_HEAD                                                                                     \
    "data: {\"id\":\"chatcmpl-mock\",\"object\":\"chat.completion.chunk\",\"created\":1741569952,"     \
    "\"model\":\"gpt-4o-mini-2024-07-18\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_mock\"," \
    "\"choices\":["

static void die(const char *what) {
    perror(what);
    exit(1);
}

/* Store an event as an HTTP chunk; the last one also carries the chunk that ends the answer. */
static void add_event(const char *text, bool last) {
    Bytes *event = &events[event_count++];
    int length = asprintf(&event->bytes, "%zx\r\n%s\r\n%s", strlen(text), text, last ? "0\r\n\r\n" : "");
    if (length < 0) {
        die("asprintf");
    }
    event->length = (size_t)length;
}

static void build_answers(void) {
    char text[1024];
    for (int i = 0; i < CONTENT_CHUNKS; i++) {
        snprintf(text, sizeof text,
                 EVENT_HEAD "{\"index\":0,\"delta\":{%s\"content\":\" word%d\"},\"logprobs\":null,"
                            "\"finish_reason\":null}],\"usage\":null}\n\n",
                 i == 0 ? "\"role\":\"assistant\"," : "", i);
        add_event(text, false);
    }
    add_event(EVENT_HEAD "{\"index\":0,\"delta\":{},\"logprobs\":null,\"finish_reason\":\"stop\"}],\"usage\":null}\n\n",
              false);
    add_event(EVENT_HEAD "],\"usage\":{\"prompt_tokens\":57,\"completion_tokens\":128,\"total_tokens\":185}}\n\n",
              false);
    add_event("data: [DONE]\n\n", true);
    int length = asprintf(&plain_answer.bytes,
                          "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nx-request-id: req_mock\r\n"
                          "Content-Length: %zu\r\n\r\n%s",
                          strlen(PLAIN_BODY), PLAIN_BODY);
    if (length < 0) {
        die("asprintf");
    }
    plain_answer.length = (size_t)length;
}

static void close_connection(int fd) {
    connections[fd].length = 0;
    close(fd);
}

/* Write everything, waiting for a slow reader; false if the peer is gone. */
static bool write_all(int fd, const char *bytes, size_t length) {
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd writable = {.fd = fd, .events = POLLOUT};
            if (poll(&writable, 1, WRITE_TIMEOUT_MS) <= 0) {
                return false;
            }
            continue;
        }
        if (written < 0 && errno != EINTR) {
            return false;
        }
        if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
    }
    return true;
}

/* Does a JSON body say "stream": true? */
static bool wants_stream(const char *body, size_t length) {
    static const char name[] = "\"stream\"";
    const char *end = body + length;
    const char *at = body;
    while ((at = memmem(at, (size_t)(end - at), name, sizeof name - 1)) != NULL) {
        at += sizeof name - 1;
        const char *value = at;
        while (value < end && (*value == ' ' || *value == ':')) {
            value++;
        }
        if (end - value >= 4 && memcmp(value, "true", 4) == 0) {
            return true;
        }
    }
    return false;
}

static bool answer(int fd, const char *request, const char *body, size_t body_length) {
    if (memcmp(request, "POST", 4) != 0) {
        return write_all(fd, NOT_FOUND, sizeof NOT_FOUND - 1);
    }
    if (!wants_stream(body, body_length)) {
        return write_all(fd, plain_answer.bytes, plain_answer.length);
    }
    if (!write_all(fd, STREAM_HEAD, sizeof STREAM_HEAD - 1)) {
        return false;
    }
    for (size_t i = 0; i < event_count; i++) {
        if (!write_all(fd, events[i].bytes, events[i].length)) {
            return false;
        }
    }
    return true;
}

/* Answer every whole request in the buffer; false if the connection must end. */
static bool answer_requests(int fd) {
    Connection *connection = &connections[fd];
    while (connection->length > 0) {
        char *start = connection->buffer;
        char *head_end = memmem(start, connection->length, "\r\n\r\n", 4);
        if (head_end == NULL) {
            return connection->length < MOST_REQUEST;
        }
        char *body = head_end + 4;
        size_t body_length = 0;
        size_t arrived = connection->length - (size_t)(body - start);
        head_end[2] = '\0';
        const char *length_header = strcasestr(start, "\r\ncontent-length:");
        bool chunked = strcasestr(start, "\r\ntransfer-encoding: chunked") != NULL;
        if (length_header != NULL) {
            body_length = strtoul(length_header + 17, NULL, 10);
        }
        head_end[2] = '\r';
        if (chunked) {
            char *last_chunk = memmem(body, arrived, "0\r\n\r\n", 5);
            body_length = last_chunk == NULL ? arrived + 1 : (size_t)(last_chunk + 5 - body);
        }
        if (arrived < body_length) {
            return connection->length < MOST_REQUEST;
        }
        if (!answer(fd, start, body, body_length)) {
            return false;
        }
        size_t used = (size_t)(body - start) + body_length;
        memmove(start, start + used, connection->length - used);
        connection->length -= used;
    }
    return true;
}

static void accept_all(int listener, int epoll) {
    int fd;
    while ((fd = accept4(listener, NULL, NULL, SOCK_NONBLOCK)) >= 0) {
        if (fd >= MOST_CONNECTIONS) {
            close(fd);
            continue;
        }
        int one = 1;
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
        if (connections[fd].buffer == NULL && (connections[fd].buffer = malloc(MOST_REQUEST + 1)) == NULL) {
            die("malloc");
        }
        connections[fd].length = 0;
        struct epoll_event event = {.events = EPOLLIN, .data.fd = fd};
        epoll_ctl(epoll, EPOLL_CTL_ADD, fd, &event);
    }
}

static void read_some(int fd) {
    Connection *connection = &connections[fd];
    ssize_t got = read(fd, connection->buffer + connection->length, MOST_REQUEST - connection->length);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) {
        return;
    }
    if (got <= 0) {
        close_connection(fd);
        return;
    }
    connection->length += (size_t)got;
    if (!answer_requests(fd)) {
        close_connection(fd);
    }
}

int main(int argc, char **argv) {
    if (argc != 2) {
        fprintf(stderr, "usage: mock PORT\n");
        return 2;
    }
    prctl(PR_SET_PDEATHSIG, SIGTERM);
    signal(SIGPIPE, SIG_IGN);
    build_answers();

    int one = 1;
    int listener = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
    setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    struct sockaddr_in address = {
        .sin_family = AF_INET,
        .sin_port = htons((uint16_t)atoi(argv[1])),
        .sin_addr.s_addr = htonl(INADDR_LOOPBACK),
    };
    if (bind(listener, (struct sockaddr *)&address, sizeof address) != 0 || listen(listener, 1024) != 0) {
        die("bind");
    }
    int epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(epoll, EPOLL_CTL_ADD, listener, &event);

    struct epoll_event ready[256];
    for (;;) {
        int count = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < count; i++) {
            if (ready[i].data.fd == listener) {
                accept_all(listener, epoll);
            } else {
                read_some(ready[i].data.fd);
            }
        }
    }
}
