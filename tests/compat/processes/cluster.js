// `cluster.js rr|none PORT`: two workers answer "one"; at SIGHUP two others that answer "two" come in their place.
"use strict";
const cluster = require("node:cluster");
const http = require("node:http");

const [policy, port] = process.argv.slice(2);

if (cluster.isPrimary) {
  cluster.schedulingPolicy = policy === "rr" ? cluster.SCHED_RR : cluster.SCHED_NONE;
  let workers = [];
  const hire = (answer) => [0, 1].map(() => cluster.fork({ ANSWER: answer }));
  workers = hire("one");
  process.on("SIGHUP", () => {
    const old = workers;
    workers = hire("two");
    let listening = 0;
    for (const worker of workers) {
      worker.on("listening", () => {
        listening += 1;
        if (listening === workers.length) old.forEach((w) => w.disconnect());
      });
    }
  });
  process.on("SIGTERM", () => {
    for (const worker of Object.values(cluster.workers)) worker.process.kill("SIGTERM");
    process.exit(0);
  });
} else {
  const server = http.createServer((request, response) => response.end(process.env.ANSWER));
  server.listen(Number(port), "127.0.0.1");
}
