// An OpenID provider for the tests: panva's oidc-provider, certified. Whoever signs in is who they say, with any
// password; "reader.xray-readers" is "reader" of the group "xray-readers". Prints its port.
import { createServer } from "node:http";
import { Provider } from "oidc-provider";

const server = createServer();
server.listen(0, "127.0.0.1", () => {
  const { port } = server.address();
  const provider = new Provider(`http://127.0.0.1:${port}`, {
    clients: [
      {
        client_id: "hilum",
        client_secret: "a secret: with / and + and %",
        redirect_uris: ["http://localhost:8080/sign-in/oidc/done"],
      },
    ],
    pkce: { required: () => true },
    conformIdTokenClaims: false,
    claims: { openid: ["sub", "auth_time"], profile: ["preferred_username", "groups"] },
    cookies: { keys: ["only for the tests"] },
    findAccount: (_, id) => {
      const [name, ...groups] = id.split(".");
      return { accountId: id, claims: () => ({ sub: id, preferred_username: name, groups }) };
    },
  });
  server.on("request", provider.callback());
  console.log(port);
});
