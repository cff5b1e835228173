import { Terminal } from "@/components/Terminal";

export default function Page() {
  return <Terminal />;
}
