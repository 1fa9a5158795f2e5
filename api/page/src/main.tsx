// The page: who is logged in, where the reader is, and which view that is.
import { render } from "preact";
import { useEffect, useRef } from "preact/hooks";
import "./style.css";
import { LogIn } from "./login";
import { useRoute, type Route } from "./route";
import { useSession, type Session } from "./session";
import { Shell } from "./shell";
import { t, useLanguage } from "./text";
import { apply } from "./theme";
import { Alarms } from "./views/alarms";
import { Completeness, Explained, Lines } from "./views/bill";
import { Cardinality } from "./views/cardinality";
import { Costs } from "./views/costs";
import { Events } from "./views/events";
import { Explore } from "./views/explore";
import { Guests } from "./views/guests";
import { Health } from "./views/health";
import { Instance } from "./views/instance";
import { Missing } from "./views/missing";
import { Overview } from "./views/overview";
import { Empty } from "./parts";

function View({ route, session }: { route: Route; session: Session }) {
  const [name, id] = route.path;
  const { params } = route;
  switch (name) {
    case undefined:
      return <Overview params={params} session={session} />;
    case "guests":
      return id ? <Instance key={id} id={id} params={params} /> : <Guests params={params} />;
    case "explore":
      return <Explore params={params} />;
    case "alarms":
      return <Alarms id={id} params={params} session={session} />;
    case "events":
      return <Events params={params} session={session} />;
    case "costs":
      if (id === "line" && route.path[2]) return <Explained key={route.path[2]} id={route.path[2]} />;
      if (id === "lines") return <Lines params={params} />;
      if (id === "complete") return <Completeness params={params} />;
      return <Costs params={params} session={session} />;
    case "cardinality":
      return <Cardinality params={params} />;
    case "health":
      return <Health session={session} />;
    case "missing":
      return <Missing params={params} />;
    default:
      return (
        <Empty text={t("error.noview")}>
          <a href="#/">{t("nav.overview")}</a>
        </Empty>
      );
  }
}

function Page() {
  const language = useLanguage();
  const session = useSession();
  const route = useRoute();
  const main = useRef<HTMLElement>(null);
  const place = route.path.join("/");
  useEffect(() => {
    document.documentElement.lang = language;
    document.title = `${t(titleOf(route.path[0]))} · Orzo`;
  }, [language, route.path[0]]);
  useEffect(() => {
    // Whoever reads with a keyboard or a voice goes on at the new view's head.
    scrollTo(0, 0);
    main.current?.querySelector("h1")?.focus({ preventScroll: true });
  }, [place]);
  if (!session) return <LogIn />;
  return (
    <Shell route={route} session={session}>
      <main id="main" ref={main} key={`${session.project.id} ${language}`}>
        <View route={route} session={session} />
      </main>
    </Shell>
  );
}

function titleOf(view: string | undefined) {
  switch (view) {
    case "guests":
      return "nav.guests";
    case "explore":
      return "nav.explore";
    case "alarms":
      return "nav.alarms";
    case "events":
      return "nav.events";
    case "costs":
      return "nav.costs";
    case "cardinality":
      return "nav.cardinality";
    case "health":
      return "nav.health";
    case "missing":
      return "nav.missing";
    default:
      return "nav.overview";
  }
}

apply();
render(<Page />, document.getElementById("page")!);
