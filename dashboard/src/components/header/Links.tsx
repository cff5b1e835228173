"use client";

import { useSystemFallback } from "@/lib/market/hooks";
import { ExternalIcon } from "../ui/icons";

const NAMES: Record<string, string> = { ray: "Ray", spark: "Spark", docs: "API" };

/** The other screens of the platform; each only where the gateway knows its address. */
export function Links() {
  const links = { docs: "/docs", ...useSystemFallback().data?.links };
  return (
    <nav aria-label="Platform" className="flex items-center gap-3">
      {Object.entries(NAMES).map(([key, name]) => {
        const href = links[key as keyof typeof links];
        return href ? (
          <a
            key={key}
            href={href}
            target="_blank"
            rel="noreferrer"
            className="flex items-center gap-1 rounded text-muted text-xs hover:text-text"
          >
            {name}
            <ExternalIcon />
          </a>
        ) : null;
      })}
    </nav>
  );
}
