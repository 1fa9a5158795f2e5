// Who is logged in: a token of the identity service, kept for this tab only and forgotten when it is refused.
import { useEffect, useState } from "preact/hooks";

export interface Project {
  id: string;
  name: string;
}

export interface Session {
  token: string;
  user: string;
  project: Project;
  /** All projects that the user may choose. */
  projects: Project[];
  roles: string[];
}

/** What the server says of itself to everybody. */
export interface About {
  version: string;
  identity: string;
  metric: string;
}

export class LogInError extends Error {
  constructor(
    readonly kind: "credentials" | "projects" | "unreachable",
    readonly detail: string,
  ) {
    super(detail);
  }
}

const KEY = "orzo.session";
const PROJECT_KEY = "orzo.project";
const listeners = new Set<() => void>();

let known: Promise<About> | undefined;
let current: Session | undefined = kept();

function kept(): Session | undefined {
  try {
    const session = JSON.parse(sessionStorage.getItem(KEY) ?? "null") as Session | null;
    return session?.token ? session : undefined;
  } catch {
    return undefined;
  }
}

/** The server has refused the token that was used last. */
let refused = false;

function become(session: Session | undefined): void {
  current = session;
  refused = false;
  if (session) sessionStorage.setItem(KEY, JSON.stringify(session));
  else sessionStorage.removeItem(KEY);
  for (const listener of listeners) listener();
}

export function session(): Session | undefined {
  return current;
}

export function useSession(): Session | undefined {
  const [, again] = useState(0);
  useEffect(() => {
    const listener = () => again((count) => count + 1);
    listeners.add(listener);
    return () => void listeners.delete(listener);
  }, []);
  return current;
}

export function isOperator(one: Session): boolean {
  return one.roles.some((role) => role === "admin" || role === "service");
}

export function about(): Promise<About> {
  known ??= fetch("page/v1/about").then((response) => {
    if (!response.ok) throw new Error(`${response.status}`);
    return response.json() as Promise<About>;
  });
  known.catch(() => (known = undefined));
  return known;
}

interface TokenBody {
  token: { user: { name: string }; project?: Project; roles?: { name: string }[] };
}

async function identity(path: string, options: RequestInit): Promise<Response> {
  try {
    const { identity } = await about();
    return await fetch(`${identity}/${path}`, options);
  } catch (error) {
    throw new LogInError("unreachable", String(error));
  }
}

async function authenticate(method: object, scope: object | undefined): Promise<{ token: string; body: TokenBody["token"] }> {
  const response = await identity("auth/tokens", {
    method: "POST",
    headers: { "Content-Type": "application/json", Accept: "application/json" },
    body: JSON.stringify({ auth: { identity: method, ...(scope ? { scope } : {}) } }),
  });
  if (response.status === 401) throw new LogInError("credentials", "");
  if (!response.ok) {
    const body = (await response.json().catch(() => undefined)) as { error?: { message?: string } } | undefined;
    throw new LogInError("unreachable", body?.error?.message ?? `${response.status}`);
  }
  const token = response.headers.get("X-Subject-Token");
  if (!token) throw new LogInError("unreachable", "X-Subject-Token");
  return { token, body: ((await response.json()) as TokenBody).token };
}

/** Logs in to the project that was used last, or else to the first. */
export async function logIn(user: string, password: string, domain: string): Promise<void> {
  const method = { methods: ["password"], password: { user: { name: user, password, domain: { name: domain } } } };
  const first = await authenticate(method, undefined);
  const response = await identity("auth/projects", { headers: { "X-Auth-Token": first.token, Accept: "application/json" } });
  if (!response.ok) throw new LogInError("unreachable", `auth/projects: ${response.status}`);
  const projects = ((await response.json()) as { projects: Project[] }).projects.map(({ id, name }) => ({ id, name }));
  projects.sort((a, b) => a.name.localeCompare(b.name));
  const last = localStorage.getItem(PROJECT_KEY);
  const wanted = projects.find((one) => one.id === last) ?? projects.find((one) => one.id === first.body.project?.id) ?? projects[0];
  if (!wanted) throw new LogInError("projects", "");
  if (first.body.project?.id === wanted.id) become(made(first, wanted, projects));
  else await scoped(first.token, wanted, projects);
}

async function scoped(token: string, project: Project, projects: Project[]): Promise<void> {
  const method = { methods: ["token"], token: { id: token } };
  become(made(await authenticate(method, { project: { id: project.id } }), project, projects));
}

function made({ token, body }: { token: string; body: TokenBody["token"] }, project: Project, projects: Project[]): Session {
  return { token, user: body.user.name, project, projects, roles: (body.roles ?? []).map((role) => role.name) };
}

/** Goes on in another project. */
export async function changeProject(project: Project): Promise<void> {
  if (!current) return;
  try {
    await scoped(current.token, project, current.projects);
    localStorage.setItem(PROJECT_KEY, project.id);
  } catch (error) {
    if (error instanceof LogInError && error.kind === "credentials") become(undefined);
    else throw error;
  }
}

/** The token is no longer good. */
export function ended(token: string): void {
  if (current?.token !== token) return;
  become(undefined);
  refused = true;
}

/** Whether it was the server that ended the session. */
export function hasEnded(): boolean {
  return refused;
}

/** Gives the token back. */
export async function logOut(): Promise<void> {
  const token = current?.token;
  become(undefined);
  if (!token) return;
  const headers = { "X-Auth-Token": token, "X-Subject-Token": token };
  // Whether or not the service hears of it, this tab has forgotten the token.
  await identity("auth/tokens", { method: "DELETE", headers }).catch(() => undefined);
}
