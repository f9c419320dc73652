{
  "variables": { "sanitize%": "", "werror%": "" },
  "targets": [
    {
      "target_name": "ringloop",
      "sources": ["addon.c", "addon-tls.c", "poller.c", "socket.c", "letter.c", "mailbox.c", "post.c", "send-ring.c", "tls.c", "unmask.c"],
      "cflags_c": ["-std=gnu11", "-O2", "-Wall", "-Wextra", "-Wshadow", "-Wconversion", "-Wno-unused-parameter", "-fvisibility=hidden"],
      "defines": ["NAPI_VERSION=8", "_GNU_SOURCE"],
      "conditions": [
        ["werror!=''", { "cflags_c": ["-Werror"] }],
        ["sanitize!=''", {
          "cflags_c": ["-fsanitize=<(sanitize)", "-fno-omit-frame-pointer", "-g", "-O1"],
          "ldflags": ["-fsanitize=<(sanitize)"]
        }]
      ]
    }
  ]
}
