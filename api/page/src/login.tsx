// Asks for user and password. The place that was asked for stays in the address and is shown afterwards.
import { useState } from "preact/hooks";
import { Logo, Switches } from "./shell";
import { hasEnded, logIn, LogInError } from "./session";
import { t } from "./text";

export function LogIn() {
  const [waiting, setWaiting] = useState(false);
  const [problem, setProblem] = useState("");
  const submit = async (event: SubmitEvent) => {
    event.preventDefault();
    const fields = new FormData(event.currentTarget as HTMLFormElement);
    const field = (name: string) => String(fields.get(name) ?? "");
    setWaiting(true);
    setProblem("");
    try {
      await logIn(field("user"), field("password"), field("domain") || "Default");
    } catch (error) {
      const kind = error instanceof LogInError ? error.kind : "unreachable";
      const detail = error instanceof LogInError ? error.detail : String(error);
      setProblem(kind === "unreachable" ? t("login.unreachable", { detail }) : t(kind === "credentials" ? "login.refused" : "login.projects"));
      setWaiting(false);
    }
  };
  return (
    <main class="login">
      <form class="card" onSubmit={submit}>
        <Logo />
        <h1>{t("login.title")}</h1>
        <label>
          {t("login.user")}
          <input name="user" autocomplete="username" required autofocus spellcheck={false} autocapitalize="off" />
        </label>
        <label>
          {t("login.password")}
          <input name="password" type="password" autocomplete="current-password" required />
        </label>
        <details>
          <summary>{t("login.more")}</summary>
          <label>
            {t("login.domain")}
            <input name="domain" placeholder="Default" spellcheck={false} />
          </label>
        </details>
        {hasEnded() && !problem && <p role="status">{t("login.ended")}</p>}
        {problem && (
          <p class="problem" role="alert">
            {problem}
          </p>
        )}
        <button type="submit" class="primary" disabled={waiting}>
          {waiting ? t("login.waiting") : t("login.do")}
        </button>
        <p class="quiet">{t("login.hint")}</p>
      </form>
      <Switches />
    </main>
  );
}
