import type { Metadata } from "next";
import Link from "next/link";
import { Mark } from "@/components/header/Mark";
import { buttonStyle } from "@/components/ui/button";

export const metadata: Metadata = { title: "Not found" };

export default function NotFound() {
  return (
    <main className="grid min-h-dvh place-items-center px-6">
      <div className="flex max-w-sm flex-col items-start gap-4">
        <Mark />
        <h1 className="font-semibold text-2xl tracking-tight">This page is not on the tape</h1>
        <p className="text-muted">
          The address may be mistyped, or what it named is no longer here.
        </p>
        <Link href="/" prefetch={false} className={buttonStyle({ variant: "solid" })}>
          Back to the market
        </Link>
      </div>
    </main>
  );
}
